"""What is computed: layers, networks and what each op of them costs."""

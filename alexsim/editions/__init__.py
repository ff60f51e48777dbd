"""Networks by name: the editions of AlexNet, what came after, and those of a user's files."""

"""``python -m alexsim``."""

from alexsim.cli.app import main

if __name__ == "__main__":
    main()

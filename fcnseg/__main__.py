"""`python -m fcnseg` is the `fcnseg` command."""

from fcnseg.commands.cli import main

if __name__ == "__main__":
    main()

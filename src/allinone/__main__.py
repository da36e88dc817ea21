"""`python -m allinone` is the program `allinone`."""

from allinone.cli.main import main

if __name__ == "__main__":
    main()

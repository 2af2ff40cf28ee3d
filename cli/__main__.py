"""`python -m zmesh_cli` is the command `zmesh`."""

from zmesh_cli.main import main

if __name__ == "__main__":
    main()

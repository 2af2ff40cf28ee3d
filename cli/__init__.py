"""The command `zmesh`: it parses, calls the library, and renders. Installed as the package zmesh_cli."""

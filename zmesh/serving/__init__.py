"""The server's side of an exchange: directives, the work that they run, isolation, built-ins, Receptor plugins."""

"""How commands take flags, refuse and show progress."""

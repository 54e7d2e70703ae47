"""One file or folder per subcommand of ``mathse``."""

"""fluxctl: the command line. It speaks HTTP over the daemon's Unix socket, one file per noun, and starts in no time:
what a verb needs is imported when that verb is called."""

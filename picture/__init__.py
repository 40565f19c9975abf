"""Picture files of the command line: reads and writes them, and decides which a run takes."""

"""Picture files of the command line: reading and writing, metadata, and which files a run reads and
writes."""

"""What this tool asks of the machine and its system: processes, signals, whole files, locks, files of records, git. Any room may use it."""

"""Starting and stopping the processes of one machine's stack. Knows processes and ports, nothing of runs."""

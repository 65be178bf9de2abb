"""The command line: what `./livoa` runs once `.venv` is there.

It talks to a run over the HTTP API only, starts processes, and shows what it sees. Deliberately without engine logic:
whatever it knows about a run, any other client could know. Each command imports only what it needs, when it needs it.
"""

"""How runs look on a terminal. Text of runs is data: never markup, never control characters."""

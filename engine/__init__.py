"""The engine of Livoa: everything that decides, records and executes, apart from the Functions shells around it."""

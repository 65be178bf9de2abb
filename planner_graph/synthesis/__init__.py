"""The answer written by a model, held to what the steps found: every figure is checked, every link is filtered."""

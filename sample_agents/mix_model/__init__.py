"""A small marketing mix model: carry-over and saturation per channel, fitted to weekly sales with honest uncertainty.

Pure computation over arrays: no files, no HTTP, no tenant. Deliberately not a Bayesian model and not a production MMM: no
priors, no interaction of channels, no geography.
"""

"""The app under the engine that Azure itself runs for Python 3.13: indexing and one invocation of each kind of function."""

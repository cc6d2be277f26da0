"""The review page: people look at what was proposed and decide."""

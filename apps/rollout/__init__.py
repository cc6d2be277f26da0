"""Closed-loop trials of policies on the simulated robot, counted with a confidence interval and kept as an artifact."""

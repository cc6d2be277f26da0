"""The demo: every stage of the path in sequence, into one workspace, and a report of what went in and came out."""

from apps.demo.run import DemoConfig, run_demo

__all__ = ["DemoConfig", "run_demo"]

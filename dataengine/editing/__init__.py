"""What an edit is made of: which episodes, what changes, and how a kept episode changes."""

"""The edges: command line, review page, policy server, robot and simulator. The only package people and sockets meet."""

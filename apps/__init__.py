"""The edges: command line, review page, policy server, robot, simulator. Only here people and sockets are met."""

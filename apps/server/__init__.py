"""The policy server: openpi's websocket protocol, an action gate in front of the robot, loopback unless told."""

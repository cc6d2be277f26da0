"""Surveys: what lies in a folder of raw data, before anybody has written a rig for it; one module per format."""

"""The web console: pymig's views in a browser, and its controls for those who log in."""

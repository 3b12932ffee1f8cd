"""The pictures in docs/images: `make screenshots`."""

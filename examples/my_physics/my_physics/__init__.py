"""What MATEY can be taught: a thing of each kind, each in one file."""

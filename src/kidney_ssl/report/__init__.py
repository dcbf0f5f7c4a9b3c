"""Tables and charts over all arms."""

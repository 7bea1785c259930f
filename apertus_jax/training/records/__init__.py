"""Run records: configuration, history, metrics, completion, and what checks them."""

"""What `benchmarks/faults.py` is made of: processes that are killed, and what must be whole afterwards."""

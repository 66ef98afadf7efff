"""The compiled parts of the CPU runtime: the executor that walks the table of records, and the kernels of the ops."""

"""What a model is: specification, operations, plan, architectures and the error tree. Standard library only."""

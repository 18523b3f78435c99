"""llm-catalyst: a language model as a complementary optimizer to gradient descent in prompt tuning."""

__version__ = "0.1.0"

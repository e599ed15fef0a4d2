"""The vocabulary between actors: frozen dataclasses, one module per service that receives them.

Each docstring says who sends the message, what the reply is and which errors come back. A message without a reply is
told, one with a reply is asked with a deadline. Every ask may also raise ``DeadlineExceeded`` or ``Unavailable``.
"""

"""Problems whose answer is known, and what samplers make of them."""

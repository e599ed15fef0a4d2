"""The routes, one module per area. Each exports ``ROUTES``; ``coxswain.api.table`` puts them together."""

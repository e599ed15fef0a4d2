"""The dashboard: pages rendered on the server from the same handlers that answer the API.

A page is a route of the table (``coxswain.web.page``) that asks API handlers for values and puts them into a template.
What a browser changes, it changes through the API. ``static/live.js`` keeps pages up to date: it hears from the live stream
what changed, and fetches the rows and fragments that show it.
"""

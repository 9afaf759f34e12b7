"""Where the configuration comes from (a mounted directory, YAML files, the environment) and how a changed one is
taken over.
"""

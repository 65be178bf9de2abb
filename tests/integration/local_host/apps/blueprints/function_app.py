"""An app that is only a table of contents."""

import azure.durable_functions as df
from orders_blueprint import bp
from plain_blueprint import plain

app = df.DFApp()
app.register_functions(bp)
app.register_blueprint(plain)

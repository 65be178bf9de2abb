"""The Functions app: a table of contents. Every blueprint is registered here, and nothing else happens here."""

import azure.durable_functions as df
import azure.functions as func

import activities.registry
import entities
import orchestrators
import triggers
from engine.bootstrap import bus_results_queue, get_deps, streaming_enabled

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)

app.register_functions(orchestrators.build())
app.register_functions(entities.build(get_deps))
app.register_functions(activities.registry.build(get_deps))
for blueprint in triggers.build(get_deps, streaming=streaming_enabled(), results_queue=bus_results_queue()):
    app.register_functions(blueprint)

"""The policy decision point: who may run what, with which inputs. Decisions only; enforcement is where steps are executed."""

"""The bundled model: its data, losses and frozen parts."""

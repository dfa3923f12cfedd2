"""tf_keras, which is Keras 2: its layouts, and the adapter that runs it."""

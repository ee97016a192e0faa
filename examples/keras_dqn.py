"""Deep Q-learning with a sparse network: catch the ball that falls.

Two networks, as usual: one learns, and now and then its weights, zeros
included, go to the other, which says what the next state is worth.
"""

import keras
import numpy as np

import rigl.keras

STEPS = 3000
BATCH, N_PLACES, DISCOUNT = 64, 8, 0.95
rng = np.random.default_rng(0)
keras.utils.set_random_seed(0)


def network():
  return keras.Sequential(
    [
      keras.Input((2 * N_PLACES + 1,)),
      keras.layers.Dense(128, 'relu'),
      keras.layers.Dense(128, 'relu'),
      keras.layers.Dense(3),
    ]
  )


def see(games):
  """What is seen of games [n, 3]: column of the ball, its height, own place."""
  ball, height, place = games.T
  one_hot = np.eye(N_PLACES, dtype='float32')
  return np.hstack([one_hot[ball], one_hot[place], height[:, None] / N_PLACES])


def new_games(n):
  ball, place = rng.integers(N_PLACES, size=(2, n))
  return np.stack([ball, np.full(n, N_PLACES), place], axis=1)


def play(games, actions):
  """(games after a step to the left, none, or to the right; rewards)."""
  ball, height, place = games.T
  place = np.clip(place + actions - 1, 0, N_PLACES - 1)
  height = height - 1
  reward = np.where(height == 0, np.where(ball == place, 1.0, -1.0), 0.0)
  return np.stack([ball, height, place], axis=1), reward.astype('float32')


online, target = network(), network()
optimizer = rigl.keras.RigL(
  keras.optimizers.Adam(1e-3),
  sparsity=0.8,
  frequency=100,
  end_step=STEPS * 3 // 4,
  drop_fraction_anneal='cosine',
)
optimizer.build(online.trainable_variables)  # Makes the weights sparse.
online.compile(optimizer, 'mse')
games = new_games(BATCH)
for step in range(STEPS):
  if step % 50 == 0:
    target.set_weights(online.get_weights())
  values = online.predict_on_batch(see(games))
  explores = rng.random(BATCH) < max(0.1, 1 - 2 * step / STEPS)
  actions = np.where(explores, rng.integers(3, size=BATCH), values.argmax(1))
  after, rewards = play(games, actions)
  is_over = after[:, 1] == 0
  future = target.predict_on_batch(see(after)).max(1)
  # The other actions keep their values, so their error is 0.
  values[np.arange(BATCH), actions] = rewards + DISCOUNT * future * ~is_over
  online.train_on_batch(see(games), values)
  games = np.where(is_over[:, None], new_games(BATCH), after)

games = new_games(1000)
for _ in range(N_PLACES):
  games, rewards = play(games, online.predict_on_batch(see(games)).argmax(1))
print(f'caught {np.mean(rewards > 0):.1%}, sparsity {rigl.keras.sparsity_of(online):.3f}')

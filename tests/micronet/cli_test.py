"""Tests of `python -m rigl.micronet`."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rigl import gin_configs
from rigl.cifar_resnet.cifar_config import CifarConfig
from rigl.compat import tf
from rigl.core import distributions
from rigl.imagenet_resnet.imagenet_config import ImageNetConfig
from rigl.micronet import architectures, checkpoint_networks, cli, formatting, network
from rigl.training.config import SparsityConfig
from tests import environment


def _run(capsys, *args):
  assert cli.main(args) == 0
  return capsys.readouterr().out


def _fail(capsys, *args):
  with pytest.raises(SystemExit) as error:
    cli.main(args)
  assert error.value.code == 2
  return capsys.readouterr().err


def _json(capsys, *args):
  return json.loads(_run(capsys, *args, '--format=json'))


@pytest.fixture(scope='module', name='checkpoint')
def _checkpoint(tmp_path_factory):
  """A checkpoint of LeNet with random masks, and what is in it."""
  folder = tmp_path_factory.mktemp('run')
  shapes = {'layer1': (784, 300), 'layer2': (300, 100), 'layer3': (100, 10)}
  random_state = np.random.RandomState(0)
  masks = {
    name: distributions.random_mask(shape, 0.97, random_state)
    for name, shape in shapes.items()
    if name != 'layer3'
  }
  _save(folder, masks, {'layer1/weights': (784, 300), 'global_step': ()})
  return folder, masks


def _save(folder, masks, others=None):
  with tf.Graph().as_default(), tf.Session() as session:
    for name, mask in masks.items():
      tf.get_variable(f'{name}/mask', initializer=mask, trainable=False)
    for name, shape in (others or {}).items():
      tf.get_variable(name, shape, initializer=tf.zeros_initializer())
    session.run(tf.global_variables_initializer())
    tf.train.Saver().save(session, str(folder / 'model.ckpt'), global_step=7)


class TestPublishedTables:
  def test_default_is_the_published_tables(self, capsys):
    text = _run(capsys)
    assert 'ResNet-50, extended training' in text
    assert 'MobileNet-v1, extended training' in text
    assert ' 102.122   102.1219 ' in text

  def test_formats_hold_the_same_rows(self, capsys):
    records = _json(capsys)
    rows = list(csv.DictReader(io.StringIO(_run(capsys, '--format=csv'))))
    assert len(records) == len(rows) == 23
    assert [row['size_published'] for row in rows] == [
      record['size_published'] for record in records
    ]
    markdown = _run(capsys, '--format=markdown')
    for record in records:
      assert f'| {record["size_published"]} → ' in markdown

  def test_as_a_module(self):
    # In a clean process, which must not need TensorFlow.
    code = (
      'import runpy, sys; sys.modules["tensorflow"] = None; '
      'sys.argv = ["x"]; runpy.run_module("rigl.micronet", '
      'run_name="__main__")'
    )
    output = subprocess.run(
      [sys.executable, '-c', code], check=True, capture_output=True, encoding='utf-8'
    ).stdout
    assert 'ERK              0.990    100x' in output


class TestArchitecture:
  def test_resnet50_dense(self, capsys):
    report = _json(capsys, '--architecture=resnet50_keras')
    assert report['flops'] == 8_202_340_776
    assert report['bytes'] == 102_121_888
    assert report['weights'] == report['kept'] == 25_502_912
    assert len(report['layers']) == 54

  def test_published_network(self, capsys):
    report = _json(capsys, '--architecture=resnet50_keras', '--sparsity=0.8', '--length=5')
    assert report['inference_multiple'] == pytest.approx(0.41529, abs=1e-5)
    assert report['training_multiples']['rigl'] == pytest.approx(2.08608, abs=1e-5)
    assert report['bytes'] / 1e6 == pytest.approx(23.6836, abs=1e-4)

  def test_listing_has_the_layers_and_their_sums(self, capsys):
    report = _json(capsys, '--architecture=wrn_16_4', '--sparsity=0.9')
    layers = report['layers']
    assert sum(layer['flops'] for layer in layers) == pytest.approx(report['flops'])
    assert sum(layer['kept'] for layer in layers) == report['kept']
    assert layers[0] == {
      'name': 'resnet_model/conv_1',
      'kind': 'Conv2D',
      'shape': [3, 3, 3, 16],
      'sparsity': 0.0,
      'density': 1.0,
      'weights': 432,
      'kept': 432,
      'mults': 32 * 32 * 16 * 28.0,
      'adds': 32 * 32 * 16 * 27.0,
      'flops': 32 * 32 * 16 * 55.0,
      'bytes': (432 + 16) * 4.0,
    }

  def test_csv_has_the_layers_of_json(self, capsys):
    args = ('--architecture=mobilenet_v2', '--sparsity=0.7')
    text = _run(capsys, *args, '--format=csv')
    rows = list(csv.DictReader(io.StringIO(text)))
    layers = _json(capsys, *args)['layers']
    assert [row['name'] for row in rows] == [layer['name'] for layer in layers]
    for row, layer in zip(rows, layers):
      assert float(row['flops']) == layer['flops']
      assert row['shape'] == 'x'.join(map(str, layer['shape']))

  @pytest.mark.parametrize('output_format', ['table', 'markdown'])
  def test_tables_for_people(self, capsys, output_format):
    text = _run(
      capsys, '--architecture=lenet_300_100', '--sparsity=0.98', f'--format={output_format}'
    )
    assert '4,704' in text
    assert '18.9 kFLOPs' in text
    for method in ('rigl', 'prune', 'momentum, dnw'):
      assert method in text
    rows = [line for line in text.splitlines() if 'layer1' in line]
    assert len(rows) == 1

  def test_text_columns_line_up(self, capsys):
    text = _run(capsys, '--architecture=resnet18', '--sparsity=0.9')
    listing = text.split('\n\n')[1].splitlines()
    assert len({len(line) for line in listing}) == 1
    assert len(listing) == 1 + 1 + 22 + 1 + 1
    assert 'names without resnet_model/' in text

  def test_width_and_sizes(self, capsys):
    report = _json(
      capsys, '--architecture=resnet18', '--width=0.5', '--input_size=64', '--num_classes=5'
    )
    assert report['layers'][0]['shape'] == [7, 7, 3, 32]
    assert report['layers'][-1]['shape'] == [256, 5]

  def test_str_distribution(self, capsys):
    report = _json(
      capsys,
      '--architecture=resnet50',
      '--sparsity=0.9023',
      '--distribution=str',
      '--first_layer_sparsity=-1',
    )
    assert report['sparsity'] == pytest.approx(0.902282649134342)

  def test_first_and_last_layer(self, capsys):
    args = ('--architecture=resnet18', '--sparsity=0.9', '--distribution=random')

    def ends(*more):
      layers = _json(capsys, *args, *more)['layers']
      return layers[0]['sparsity'], layers[-1]['sparsity']

    assert ends() == (0.0, 0.9)
    assert ends('--first_layer_sparsity=-1') == (0.9, 0.9)
    assert ends('--first_layer_sparsity=0.3', '--last_layer_sparsity=0') == (0.3, 0.0)
    assert ends('--layer_sparsity=resnet_model/final_dense=0.5') == (0.0, 0.5)

  def test_all_operations(self, capsys):
    few = _json(capsys, '--architecture=resnet18')
    many = _json(capsys, '--architecture=resnet18', '--all_operations')
    assert len(many['layers']) - len(few['layers']) == 8 + 1
    assert many['flops'] > few['flops']
    assert many['bytes'] == few['bytes']

  def test_pruning_schedule(self, capsys):
    args = ('--architecture=lenet_300_100', '--sparsity=0.9', '--pruning_schedule=100,98,100,1')
    report = _json(capsys, *args)
    # Nearly all steps are dense.
    assert 0.97 < report['training_multiples']['prune'] < 1

  def test_power_scale_zero_is_uniform(self, capsys):
    report = _json(capsys, '--architecture=vgg_a', '--sparsity=0.9', '--erk_power_scale=0')
    sparsities = [layer['sparsity'] for layer in report['layers']]
    assert sparsities == pytest.approx([0.9] * 9, abs=1e-3)


class TestCheckpoint:
  def test_counts_the_masks_as_they_are(self, capsys, checkpoint):
    folder, masks = checkpoint
    report = _json(capsys, f'--checkpoint={folder}')
    n_zeros = {name: int((mask == 0).sum()) for name, mask in masks.items()}
    layers = {layer['name']: layer for layer in report['layers']}
    for name, mask in masks.items():
      assert layers[name]['kept'] == int(mask.sum())
      assert layers[name]['sparsity'] == n_zeros[name] / mask.size
    assert layers['layer3']['sparsity'] == 0
    assert report['sparsity'] == pytest.approx(sum(n_zeros.values()) / 266_200)
    expected = network.count_network(
      architectures.get_network('lenet_300_100').layers,
      {name: zeros / masks[name].size for name, zeros in n_zeros.items()},
    )
    assert report['flops'] == pytest.approx(expected.flops)
    assert report['bytes'] == pytest.approx(expected.megabytes * 1e6)
    assert report['title'].startswith('lenet_300_100, masks of ')

  def test_prefix_and_named_architecture(self, capsys, checkpoint):
    folder, _ = checkpoint
    by_prefix = _json(capsys, f'--checkpoint={folder}/model.ckpt-7', '--architecture=lenet_300_100')
    by_folder = _json(capsys, f'--checkpoint={folder}')
    assert by_prefix['layers'] == by_folder['layers']

  @pytest.mark.parametrize(
    'name, width',
    [
      ('resnet18', 0.25),
      ('resnet34', 0.25),
      ('wrn_16_2', None),
      ('mobilenet_v1', 0.25),
      ('vgg_a', 0.1),
    ],
  )
  def test_finds_the_architecture(self, capsys, tmp_path, name, width):
    net = architectures.get_network(name, width=width)
    # A constant is enough to recognise a network by.
    masks = {
      layer: np.zeros(shape, np.float32)
      for layer, shape in net.shapes.items()
      if layer not in net.sparsity_factors
    }
    _save(tmp_path, masks)
    args = [f'--checkpoint={tmp_path}']
    if width:
      args.append(f'--width={width}')
    report = _json(capsys, *args)
    assert report['title'].startswith(f'{name}, ')
    assert report['kept'] == sum(np.prod(net.shapes[layer]) for layer in net.sparsity_factors)

  def test_sizes_that_are_not_the_usual_ones(self, capsys, tmp_path):
    sizes = {'width': 0.25, 'input_size': 32, 'num_classes': 10}
    net = architectures.get_network('resnet18', **sizes)
    masks = {
      name: np.ones(shape, np.float32)
      for name, shape in net.shapes.items()
      if name not in net.sparsity_factors
    }
    _save(tmp_path, masks)
    given = [f'--checkpoint={tmp_path}', '--width=.25', '--input_size=32']
    expected = network.count_network(net.weighted_layers)
    # The mask of the last layer tells the number of classes.
    for more in ([], ['--num_classes=10'], ['--architecture=resnet18']):
      report = _json(capsys, *given, *more)
      assert report['title'].startswith('resnet18, ')
      assert report['flops'] == expected.flops
    message = _fail(capsys, *given, '--num_classes=11')
    for flag in ('--width', '--input_size', '--num_classes'):
      assert flag in message

  @pytest.mark.parametrize(
    'config, name, sizes',
    [
      (
        ImageNetConfig(resnet_depth=18, width=0.25, image_size=32, num_label_classes=10),
        'resnet18',
        {'width': 0.25, 'input_size': 32, 'num_classes': 10},
      ),
      (
        ImageNetConfig(
          model_architecture='mobilenet_v1',
          width=0.5,
          image_size=64,
          last_layer_sparsity=0.0,
          num_label_classes=7,
        ),
        'mobilenet_v1',
        {'width': 0.5, 'input_size': 64, 'num_classes': 7},
      ),
      (ImageNetConfig(model_architecture='vgg_a', image_size=32), 'vgg_a', {'input_size': 32}),
      (
        CifarConfig(resnet_depth=10, resnet_width=1, num_classes=13),
        'wrn_10_1',
        {'num_classes': 13},
      ),
    ],
  )
  @pytest.mark.parametrize('given', ['folder', 'prefix'])
  def test_the_folder_of_a_run_is_enough(self, capsys, tmp_path, config, name, sizes, given):
    net = architectures.get_network(name, **sizes)
    masks = {
      layer: np.zeros(shape, np.float32)
      for layer, shape in net.shapes.items()
      if layer not in net.sparsity_factors and layer != net.last_layer
    }
    _save(tmp_path, masks)
    gin_configs.write(str(tmp_path), SparsityConfig(maskupdate_frequency=7), config)
    path = tmp_path if given == 'folder' else tmp_path / 'model.ckpt-7'
    report = _json(capsys, f'--checkpoint={path}')
    assert report['title'].startswith(f'{name}, ')
    assert report['delta_t'] == 7
    assert _json(capsys, f'--checkpoint={path}', '--delta_t=9')['delta_t'] == 9
    assert {row['name']: tuple(row['shape']) for row in report['layers']} == net.shapes
    assert (
      report['flops']
      == network.count_network(
        net.weighted_layers, n_zeros={layer: mask.size for layer, mask in masks.items()}
      ).flops
    )

  def test_an_argument_that_differs_from_the_run_is_named(self, capsys, tmp_path):
    net = architectures.get_network('resnet18', width=0.25)
    _save(
      tmp_path,
      {
        name: np.ones(shape, np.float32)
        for name, shape in net.shapes.items()
        if name not in net.sparsity_factors
      },
    )
    gin_configs.write(
      str(tmp_path), SparsityConfig(), ImageNetConfig(resnet_depth=18, width=0.25, image_size=32)
    )
    message = _fail(capsys, f'--checkpoint={tmp_path}', '--width=0.5')
    assert message.endswith('Its config.gin has width=0.25, not 0.5: leave out --width.\n')
    # One that fits wins.
    given = _json(capsys, f'--checkpoint={tmp_path}', '--input_size=64')
    assert (
      given['flops']
      == network.count_network(
        architectures.get_network('resnet18', width=0.25, input_size=64).weighted_layers
      ).flops
    )

  def test_classes_of_an_unmasked_layer(self, capsys, tmp_path):
    net = architectures.get_network('lenet_300_100', input_size=16, num_classes=26)
    _save(tmp_path, {name: np.ones(net.shapes[name], np.float32) for name in ('layer1', 'layer2')})
    report = _json(capsys, f'--checkpoint={tmp_path}', '--input_size=16', '--num_classes=26')
    assert report['layers'][-1]['shape'] == [100, 26]

  def test_wrong_architecture(self, capsys, checkpoint):
    message = _fail(capsys, f'--checkpoint={checkpoint[0]}', '--architecture=resnet50')
    assert "it has no layer 'layer1'" in message

  def test_wrong_width(self, capsys, checkpoint):
    message = _fail(
      capsys, f'--checkpoint={checkpoint[0]}', '--architecture=lenet_300_100', '--width=2'
    )
    assert "layer 'layer1' has the shape (784, 600), the mask (784, 300)" in (message)
    assert '--width' in message

  def test_unknown_network(self, capsys, tmp_path):
    _save(tmp_path, {'mine': np.ones((3, 4), np.float32)})
    message = _fail(capsys, f'--checkpoint={tmp_path}')
    assert "['mine']" in message
    assert '--architecture' in message

  def test_the_path_may_begin_with_the_home_folder(self, capsys, checkpoint, monkeypatch):
    folder, _ = checkpoint
    monkeypatch.setenv('HOME', str(folder.parent))
    assert _run(capsys, f'--checkpoint=~/{folder.name}') == _run(capsys, f'--checkpoint={folder}')

  @pytest.mark.parametrize('path', ['~', '~/x', '~nobody/x'])
  def test_a_home_folder_that_nobody_knows(self, capsys, no_home, path):
    message = _fail(capsys, f'--checkpoint={path}')
    assert message.startswith(f'Error: --checkpoint={path!r}: the home folder ')
    assert message.count('\n') == 1

  def test_no_checkpoint(self, capsys, tmp_path):
    for path in (tmp_path, tmp_path / 'model.ckpt-3'):
      assert 'No checkpoint at' in _fail(capsys, f'--checkpoint={path}')

  def test_folder_without_its_state_file(self, capsys, tmp_path):
    _save(tmp_path, {'layer1': np.ones((784, 300), np.float32)})
    (tmp_path / 'checkpoint').unlink()
    found = checkpoint_networks.read_masks(str(tmp_path))
    assert found == {'layer1': ((784, 300), 0)}

  def test_damaged_state_file(self, capsys, tmp_path):
    _save(tmp_path, {'layer1': np.ones((784, 300), np.float32)})
    state_file = tmp_path / 'checkpoint'
    state_file.write_text('rubbish')
    message = _fail(capsys, f'--checkpoint={tmp_path}')
    assert f'{state_file} is damaged' in message

  @pytest.mark.parametrize('suffix', ['index', 'data-00000-of-00001'])
  def test_damaged_checkpoint(self, capsys, tmp_path, suffix):
    _save(tmp_path, {'layer1': np.ones((784, 300), np.float32)})
    (path,) = tmp_path.glob(f'*.{suffix}')
    path.write_bytes(path.read_bytes()[:20])
    message = _fail(capsys, f'--checkpoint={tmp_path}')
    assert 'Cannot read the checkpoint' in message
    assert str(tmp_path) in message

  def test_no_masks(self, capsys, tmp_path):
    _save(tmp_path, {}, {'layer1/weights': (3, 4)})
    assert 'without --checkpoint' in _fail(capsys, f'--checkpoint={tmp_path}')

  def test_not_a_mask(self, capsys, tmp_path):
    _save(tmp_path, {'layer1': np.full((784, 300), 0.5, np.float32)})
    message = _fail(capsys, f'--checkpoint={tmp_path}')
    assert "'layer1/mask'" in message
    assert 'other than 0 and 1' in message

  def test_sparsity_is_not_for_checkpoints(self, capsys, checkpoint):
    message = _fail(capsys, f'--checkpoint={checkpoint[0]}', '--sparsity=0.9')
    assert 'Give --sparsity or --checkpoint' in message


class TestErrors:
  @pytest.mark.parametrize(
    'args, message',
    [
      (['--architecture=resnet51'], 'Unknown architecture'),
      (['--architecture=resnet50', '--sparsity=1.5'], 'got 1.5'),
      (['--architecture='], "Unknown architecture ''. Choose one of: "),
      (['--checkpoint='], "No checkpoint at ''"),
      (['--architecture=resnet50', '--width=-1'], '--width must be > 0'),
      (['--architecture=resnet50', '--width=inf'], '--width must be finite'),
      (
        ['--architecture=resnet50', '--width=.001', '--distribution=random'],
        'resnet50 at width 0.001 has a layer without channels',
      ),
      (
        ['--architecture=vgg_16', '--input_size=15', '--all_operations'],
        'input_size 15 is too small',
      ),
      (['--architecture=resnet50', '--length=inf'], '--length must be finite'),
      (['--architecture=resnet50', '--param_bits=0'], 'param_bits must be > 0'),
      (
        ['--architecture=vgg_16', '--distribution=str', '--sparsity=0.9023'],
        'vgg_16/conv1/conv1_1',
      ),
      (['--architecture=resnet50', '--layer_sparsity=nope=0.5'], "['nope']"),
      (['--architecture=resnet50', '--layer_sparsity=0.5'], 'LAYER=S'),
      (['--architecture=resnet50', '--layer_sparsity=a=b'], 'LAYER=S'),
      (
        ['--architecture=resnet50', '--pruning_schedule=a,b,c,d'],
        "STEPS,BEGIN,END,FREQUENCY, got 'a,b,c,d'",
      ),
      (['--architecture=resnet50', '--pruning_schedule=1,2'], 'STEPS,BEGIN,END,FREQUENCY'),
      (['--architecture=resnet50', '--delta_t=0'], 'delta_t must be'),
      (['--sparsity=0.9'], '--sparsity needs --architecture or --checkpoint'),
      (['--num_classes=10', '--format=csv'], '--num_classes needs'),
      (['--layer_sparsity=a=0.5', '--checkpoint=x'], 'Give --layer_sparsity or --checkpoint'),
      (['--distribution=str', '--checkpoint=x'], 'Give --distribution or'),
      (['--format=xml'], 'invalid choice'),
      (['--distribution=erdos'], 'invalid choice'),
    ],
  )
  def test_message_and_exit_code(self, capsys, args, message):
    assert message in _fail(capsys, *args)


class TestFormatting:
  @pytest.mark.parametrize(
    'value, text',
    [
      (8202340776.0, '8.202 GFLOPs'),
      (18898.0, '18.9 kFLOPs'),
      (999.96e3, '1 MFLOPs'),
      (999.5e3, '999.5 kFLOPs'),
      (3.2e18, '3.2 EFLOPs'),
      (12.0, '12 FLOPs'),
    ],
  )
  def test_quantity(self, value, text):
    assert formatting.quantity(value, 'FLOPs') == text

  def test_long_names_go_on_in_the_next_line(self):
    name = 'bottleneck_projection_block_group_projection_block_group1'
    table = formatting.text_table(['layer', 'size'], [[name, '1'], ['b', '2']], max_width=30)
    lines = table.splitlines()
    assert max(map(len, lines)) == 30
    assert lines[2].endswith('1')
    assert ''.join(line[:24] for line in lines[2:5]) == name
    assert lines[-1].split() == ['b', '2']

  def test_brackets_and_colons_are_no_markup(self):
    name = 'model/dense[red]/:smile:'
    assert name in formatting.text_table(['layer'], [[name]])

  def test_wide_characters_stay_aligned(self):
    rows = [['層一', '3'], ['ab', '4']]
    lines = formatting.text_table(['layer', 'size'], rows).splitlines()
    assert lines[2:] == ['層一      3', 'ab        4']

  @pytest.mark.parametrize('max_width', [5, 25])
  def test_without_room_for_names_no_line_is_folded(self, max_width):
    table = formatting.text_table(['layer', 'size'], [['x' * 50, '123456789']], max_width=max_width)
    assert table.splitlines()[2] == 'x' * 50 + '  123456789'

  @pytest.mark.parametrize('name', ['FORCE_COLOR', 'TTY_COMPATIBLE', 'JPY_PARENT_PID', 'COLUMNS'])
  def test_the_environment_changes_nothing(self, name, monkeypatch):
    rows = [['x' * 100, '123456789']]
    table = formatting.text_table(['layer', 'size'], rows)
    monkeypatch.setenv('TERM', 'dumb')
    monkeypatch.setenv(name, '1')
    assert formatting.text_table(['layer', 'size'], rows) == table
    assert table.splitlines()[2] == 'x' * 100 + '  123456789'


def test_network_without_flops(capsys):
  text = _run(capsys, '--architecture=vgg_16', '--sparsity=1')
  (total,) = [line for line in text.splitlines() if line.startswith('total')]
  assert total.split()[-3:] == ['0.000', '0.0%', '1,902.81']


def test_infinity_is_no_json(capsys):
  args = ('--architecture=lenet_300_100', '--sparsity=.5', '--delta_t=inf')
  report = json.loads(_run(capsys, *args, '--format=json'), parse_constant=pytest.fail)
  assert report['delta_t'] is None
  multiples = report['training_multiples']
  assert multiples['rigl'] == multiples['static']
  assert 'inf steps between mask updates' in _run(capsys, *args)


def test_ascii_terminal():
  output = subprocess.run(
    [sys.executable, '-m', 'rigl.micronet'],
    check=True,
    capture_output=True,
    env={**os.environ, 'PYTHONIOENCODING': 'ascii'},
  ).stdout.decode('ascii')
  assert '?' * 20 in output
  assert ' 102.122   102.1219 ' in output


def test_help_tells_the_defaults(capsys):
  with pytest.raises(SystemExit):
    cli.main(['--help'])
  text = ' '.join(capsys.readouterr().out.split())
  for default in ('table', '32', '0', 'erdos_renyi_kernel', '1', '100', '32000,0,25000,100'):
    assert f'(default: {default})' in text


def test_terminal_width_is_used(capsys, monkeypatch):
  monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
  monkeypatch.setenv('COLUMNS', '120')
  text = _run(capsys, '--architecture=resnet50', '--sparsity=0.9')
  assert max(map(len, text.splitlines())) == 120
  assert '\n_projection_block_group1\n' in text


def test_environment_of_tensorflow_is_quiet(checkpoint):
  output = subprocess.run(
    [sys.executable, '-m', 'rigl.micronet', f'--checkpoint={checkpoint[0]}'],
    check=True,
    capture_output=True,
    encoding='utf-8',
    env=environment.without_log_level(),
  )
  assert output.stdout.startswith('lenet_300_100, masks of')
  assert not output.stderr

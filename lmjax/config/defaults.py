# SPDX-License-Identifier: Apache-2.0
"""Every setting with its default; the only place where a default lives.

An experiment begins with `config = base.get_config(model="lstm")`, or with
`task="classification"` too where it learns from records, and changes what it is
about. Assigning a key that is not here is an error. A size of 0 stands for
"derived", as its comment says.
"""

from ml_collections import ConfigDict

RECURRENT = dict(
  num_layers=2,
  width=256,
  embedding_width=0,  # 0: width
  # Of the kernels of inputs, and of hidden vectors: uniform (±1/√inputs) |
  # normal (0.02) | glorot_uniform | glorot_normal | he_normal | lecun_normal |
  # orthogonal
  initializer="glorot_uniform",
  recurrent_initializer="uniform",
  residual=False,  # layers add to what they read, where widths are equal
  tie_embeddings=False,  # the last layer is then embedding_width wide
  dropout=0.0,  # on embeddings and behind layers, a mask a token
  embedding_dropout=0.0,  # of whole tokens of the vocabulary
  input_dropout=0.0,  # on embeddings, a mask a row and window, ...
  hidden_dropout=0.0,  # ... between layers, ...
  output_dropout=0.0,  # ... and behind the last
  weight_drop=0.0,  # of recurrent kernels
  activation_regularization=0.0,  # weight of the output's mean square
  temporal_activation_regularization=0.0,  # and of its change's
  dtype="float32",  # of the matmuls: float32 | bfloat16
  param_dtype="float32",
)

MIN_RNN = dict(
  num_layers=3,
  width=128,
  recurrent_width=0,  # 0: width
  conv_size=4,  # inputs that a convolution before it sees; 0: none
  feed_forward="gelu",  # as a Transformer's, or none
  feed_forward_width=0,  # 0: 4 · width
  norm="rms",  # layer | layer_no_bias | rms | batch | none
  dropout=0.0,
  tie_embeddings=True,
  dtype="float32",
  param_dtype="float32",
)

# What all Transformers have.
_BLOCKS = dict(
  num_layers=4,
  width=128,
  num_heads=4,
  # sigmoid | tanh | relu | gelu | gelu_exact | silu, or gated: glu | reglu |
  # geglu | swiglu | bilinear
  feed_forward="gelu",
  feed_forward_width=0,  # 0: 4 · width
  num_experts=0,  # of each feed-forward layer; 0: a plain one
  experts_per_token=2,
  capacity_factor=0.0,  # of an expert's fair share, in training; 0: no limit
  balance_loss=0.01,  # weight of the loss on uneven use of experts
  router_z_loss=0.001,  # weight of the loss on the router's large logits
  norm="layer",  # layer | layer_no_bias | rms | batch
  norm_position="pre",  # pre | post
  qk_norm="none",  # of queries and keys: none | layer | layer_no_bias | rms
  dropout=0.0,
  use_bias=False,
  tie_embeddings=True,
  # normal | uniform | glorot_uniform | glorot_normal | he_normal |
  # lecun_normal | orthogonal
  initializer="normal",
  remat=False,
  scan_layers="auto",  # auto | scan | unrolled
  dtype="float32",  # of the matmuls: float32 | bfloat16
  param_dtype="float32",
)
# And all but Transformer-XL.
_TRANSFORMER_STACK = dict(
  **_BLOCKS,
  num_kv_heads=0,  # 0: num_heads
  # learned | sinusoidal | rotary | relative (T5) | alibi | none
  positions="rotary",
  max_context=0,  # tokens of the carry, learned positions; 0: data.window
  attention_dropout=0.0,  # of its weights, which are then stored, T · T a head
)
MODELS = dict(
  ngram=dict(
    name="ngram",
    order=5,
    smoothing="modified_kneser_ney",  # maximum_likelihood | add_k |
    # stupid_backoff | kneser_ney | modified_kneser_ney
    add_k=0.1,  # add_k: what is added to every count
    backoff_factor=0.4,  # stupid_backoff
    arpa="",  # tables of another program; empty: count the training text
  ),
  lstm=dict(
    name="lstm",
    layer_norm=False,
    projection_width=0,  # of the hidden vectors; 0: width, without projection
    implementation="auto",  # of the layers: auto | scan | cudnn
    **RECURRENT,
  ),
  gru=dict(name="gru", **RECURRENT),
  rnn=dict(
    name="rnn",
    activation="tanh",  # tanh | relu
    **RECURRENT,
  ),
  transformer=dict(
    _TRANSFORMER_STACK,
    name="transformer",
    attention_window=0,  # newest positions that each token sees; 0: all
  ),
  transformer_xl=dict(
    _BLOCKS,
    name="transformer_xl",
    memory=128,  # tokens before a window whose hidden states are kept
  ),
  encoder=dict(
    _TRANSFORMER_STACK,
    name="encoder",
    positions="learned",
    use_bias=True,
  ),
  encoder_decoder=dict(
    _TRANSFORMER_STACK,
    name="encoder_decoder",
    num_encoder_layers=0,  # 0: num_layers
    positions="relative",
    norm="rms",
    feed_forward="relu",
  ),
  word_vectors=dict(
    name="word_vectors",
    width=100,
    dtype="float32",
    param_dtype="float32",
  ),
  min_gru=dict(name="min_gru", **MIN_RNN),
  min_lstm=dict(name="min_lstm", **MIN_RNN),
  gated_convolution=dict(
    name="gated_convolution",
    num_layers=6,
    width=128,
    embedding_width=0,  # 0: width
    conv_size=4,  # tokens that a convolution sees
    bottleneck_width=0,  # of the convolutions above the first; 0: none
    weight_norm=True,
    norm="none",  # layer | layer_no_bias | rms | batch | none
    dropout=0.0,
    tie_embeddings=False,
    dtype="float32",
    param_dtype="float32",
  ),
  xlstm=dict(
    name="xlstm",
    blocks="m",  # m: mLSTM, s: sLSTM; repeated for all layers
    num_layers=3,
    width=192,
    inner_width=0,  # of an mLSTM; 0: 2 · width
    num_heads=4,
    block_width=4,  # of an mLSTM's maps to queries, keys and values
    conv_size=4,  # inputs that a convolution before gates sees; 0: none
    feed_forward="geglu",  # behind an sLSTM; as a Transformer's, or none
    feed_forward_width=0,  # 0: 4/3 · width
    norm="layer_no_bias",  # layer | layer_no_bias | rms | batch | none
    dropout=0.0,
    tie_embeddings=True,
    dtype="float32",
    param_dtype="float32",
  ),
  rg_lru=dict(
    name="rg_lru",
    num_layers=4,
    width=120,
    recurrent_width=0,  # 0: 4/3 · width, down to a multiple of num_heads
    num_heads=8,  # blocks of the maps to the gates
    conv_size=4,  # inputs that the convolution before it sees; 0: none
    feed_forward="geglu",  # as a Transformer's, or none
    feed_forward_width=0,  # 0: 3 · width
    norm="rms",  # layer | layer_no_bias | rms | batch | none
    dropout=0.0,
    tie_embeddings=True,
    dtype="float32",
    param_dtype="float32",
  ),
)
MODELS["recurrent_encoder"] = dict(
  name="recurrent_encoder",
  cell="lstm",  # lstm | layer_norm_lstm | gru | rnn | relu_rnn
  bidirectional=True,
  num_layers=1,
  width=128,  # of a layer in one direction
  embedding_width=0,  # 0: width
  embedding_scale=0.1,  # their standard deviation at initialisation
  initializer="glorot_uniform",  # as of recurrent language models
  recurrent_initializer="orthogonal",
  dropout=0.3,  # on embeddings and behind layers, a mask a token
  locked_dropout=0.0,  # there too, a mask a text
  embedding_dropout=0.0,  # of whole tokens of the vocabulary
  weight_drop=0.0,  # of recurrent kernels
  dtype="float32",
  param_dtype="float32",
)
MODELS["recurrent_seq2seq"] = dict(
  name="recurrent_seq2seq",
  cell="lstm",  # as of recurrent_encoder
  bidirectional=True,  # the encoder
  num_layers=1,  # of the decoder
  num_encoder_layers=0,  # 0: num_layers
  width=256,  # of the decoder, and of the encoder's directions together
  embedding_width=0,  # 0: width
  attention="general",  # none | additive | general | dot | scaled_dot
  input_feeding=False,  # what was made of a token goes in with the next
  copies=False,  # tokens of the source may be copied
  scheduled_sampling=0.0,  # share of inputs that the model draws, in training
  tie_embeddings=False,
  initializer="glorot_uniform",  # as of recurrent language models
  recurrent_initializer="orthogonal",
  dropout=0.2,  # on embeddings, behind layers and attention, a mask a token
  dtype="float32",
  param_dtype="float32",
)
MODELS["text_cnn"] = dict(
  name="text_cnn",
  kernel_sizes=(3, 4, 5),  # tokens that a convolution sees
  width=128,  # feature maps of each size
  embedding_width=0,  # 0: width
  embedding_scale=0.03,  # their standard deviation at initialisation
  initializer="glorot_uniform",
  dropout=0.0,  # on embeddings
  embedding_dropout=0.0,  # of whole tokens of the vocabulary
  dtype="float32",
  param_dtype="float32",
)
MODELS["bag_of_ngrams"] = dict(
  name="bag_of_ngrams",
  order=2,  # length of the longest n-grams; 1: words alone
  num_buckets=2**15,  # vectors that n-grams share
  width=64,
  embedding_scale=0.03,  # their standard deviation at initialisation
  dropout=0.0,  # on vectors
  embedding_dropout=0.0,  # of whole tokens of the vocabulary
  dtype="float32",
  param_dtype="float32",
)

# Of models that do not go on from a text: what they learn, and show.
TASKS = dict(
  recurrent_encoder="classification",
  recurrent_seq2seq="seq2seq",
  text_cnn="classification",
  bag_of_ngrams="classification",
  encoder="masked_lm",
  encoder_decoder="span_corruption",
  word_vectors="skip_gram",
)
PROMPTS = dict(encoder="the ___", encoder_decoder="the ___")

# Of tasks that learn from records: what the head of a model is, and what it is
# taught by.
RECORD_TASKS = dict(
  classification=dict(
    labels="one",  # one | many
    separator=",",  # many: between labels
    # The loss: of one label cross_entropy | multiclass_hinge, of one or many
    # focal | binary_cross_entropy | mean_squared_error | hinge | exponential.
    criterion="cross_entropy",
    focal_gamma=2.0,  # focal: how much it turns from what is known
    class_weights="none",  # one: none | balanced
    pooling="max",  # last | first | mean | max | attention
    dropout=0.5,  # on the pooled features
  ),
  tagging=dict(
    # none: tags as they are | bio, bioes: of spans | segmentation: words are
    # found in texts without blanks, and are in the column of the tags
    scheme="none",
    max_characters=20,  # of a word that are read; 0: none
    character_encoder="cnn",  # cnn | lstm
    character_embedding_width=30,
    character_width=50,  # of what is read of a word's characters
    bigram_width=0,  # of embeddings of a token and the next; 0: none
    dropout=0.3,  # behind the encoder
    crf=False,  # whether a tag depends on the one before
    constrained=True,  # predict no spans that the scheme does not write
  ),
  matching=dict(
    # Of pairs with a label: classification; with a score: regression (squared
    # error) | distribution (over whole scores); of pairs that go together, with
    # all others of a batch on a device as wrong ones: contrastive | triplet
    loss="contrastive",
    encoders="separate",  # shared | separate | cross (both in one row)
    second_tokenizer="",  # of the second text; empty: one for both
    pooling="max",  # as of a classifier
    comparison="cosine",  # cosine | dot | bilinear | manhattan | features
    features_width=50,  # features: of the hidden layer that reads them
    dropout=0.0,  # on the pooled features
    lowest=1.0,  # regression, distribution: the lowest score ...
    highest=5.0,  # ... and the highest
    temperature=0.05,  # contrastive: what similarities are divided by
    margin=0.2,  # triplet: of what is right above what is wrong
    negatives="hardest",  # triplet: hardest | all
    num_candidates=1000,  # second texts that retrieval is judged on; 0: all
  ),
  seq2seq=dict(
    # Of targets, as data.tokenizer; empty: one vocabulary for both texts
    target_tokenizer="",
    beam_size=1,  # texts that are searched for at once; 1: greedy
    length_penalty=0.6,  # of Wu et al. 2016; 0: none
    # Likewise, for what is left out of sources, if beam_size is above 1
    coverage_penalty=0.0,
    num_best=1,  # how many of them are shown
    max_target_length=0,  # tokens that are written at most; 0: data.window
    # Of bleu, chrf, rouge, exact_match, token_error_rate
    metrics="bleu,chrf,exact_match,token_error_rate",
  ),
)
# And which columns of a table have what it needs: by name, or by number from 0.
COLUMNS = dict(
  classification=dict(text="text", label="label"),
  tagging=dict(tokens="token", tags="tag"),
  matching=dict(first="signature", second="summary", label="label"),
  # parallel: the endings of the files' names
  seq2seq=dict(source="source", target="target"),
)
# And what they read where nothing else is named, inside every CPython.
SOURCES = dict(
  classification="python_docstrings",
  tagging="python_tokens",
  matching="python_signatures",
  seq2seq="number_words",
)


def get_config(model: str, task: str = "") -> ConfigDict:
  """Return the defaults for a model and a task, locked against unknown keys.

  Args:
    model: a key of MODELS.
    task: what it learns; empty for what such a model usually does. Tasks that
      learn from running text have the same keys, each task that learns from
      records has others.
  """
  config = ConfigDict()
  config.seed = 0
  # language_modeling | prefix_lm | fill_in_the_middle | control_codes |
  # masked_lm | span_corruption | skip_gram | cbow | glove | classification |
  # tagging | matching | seq2seq
  config.task = task or TASKS.get(model, "language_modeling")
  config.model = MODELS[model]
  if config.task in RECORD_TASKS:
    _learn_from_records(config)
  else:
    _learn_from_text(config, model)
  _learn(config)
  return config.lock()


def _learn_from_records(config: ConfigDict) -> None:
  """Set what tasks with records need."""
  config[config.task] = RECORD_TASKS[config.task]

  config.data = dict(
    # tsv | csv | jsonl | conll | conllu | parallel | tfds | python_tokens |
    # python_signatures | python_docstrings | number_words
    source=SOURCES[config.task],
    path="",  # of files: a file, a folder or a glob
    header=False,  # tsv, csv: whether the first line names the columns
    name="",  # tfds: name of the data set
    data_dir="",  # tfds: folder that holds it
    columns=COLUMNS[config.task],
    split_by="ratio",  # ratio | name
    valid_fraction=0.1,  # of the records, where no file is for valid
    test_fraction=0.1,
    train_files="*train*",  # name: comma-separated patterns on file names
    valid_files="*valid*,*val*,*dev*",
    test_files="*test*",
    train_fraction=1.0,  # of the records of train: what is learned from
    malformed="refuse",  # records that lack something: refuse | skip
    # byte | character | word | word_punctuation | bpe; tagging: its tokens are
    # there already
    tokenizer="word_punctuation",
    vocab_size=0,  # as for running text
    min_freq=1,
    lower_case=False,
    window=128,  # tokens of a text; longer ones are cut
    batch_size=32,  # rows of a batch, over all devices
    num_buckets=4,  # of lengths: batches have at most so many shapes
    num_threads=1,  # threads that read batches ahead
    cache_dir="",  # encoded records; empty: the run folder
  )

  config.sample = dict(  # what training shows of itself
    num_rows=4,  # of valid, with what is predicted
  )


def _learn_from_text(config: ConfigDict, model: str) -> None:
  """Set what tasks with running text need."""
  config.data = dict(
    source="python_docs",  # python_docs | python_source | text | jsonl | tsv |
    # tfds
    path="",  # text, jsonl, tsv: a file, a folder or a glob
    field="text",  # jsonl, tfds: where the text is; tsv: number of the column
    name="",  # tfds: name of the data set
    data_dir="",  # tfds: folder that holds it
    split_by="ratio",  # text, jsonl, tsv: ratio | name
    valid_fraction=0.05,  # ratio: of all characters
    test_fraction=0.05,
    train_files="*train*",  # name: comma-separated patterns on file names
    valid_files="*valid*,*val*,*dev*",
    test_files="*test*",
    # byte | character | word | word_punctuation | bpe
    tokenizer="character",
    # character, word: at most; bpe: exactly; 0: no limit; marks that a task
    # puts into the text come on top
    vocab_size=0,
    min_freq=1,
    lower_case=False,
    append_eos=True,  # end each document in <eos>
    order="stateless",  # stateless | stateful
    reset_at_documents=False,  # empty memory where a document begins
    window=128,  # tokens in a row of a batch; span_corruption: in its sources
    batch_size=32,  # rows of a batch, over all devices
    num_threads=1,  # threads that read batches ahead
    cache_dir="",  # encoded corpora; empty: the run folder
  )

  config.objective = dict(  # what becomes of the text before it is learned
    mask_rate=0.15,  # masked_lm, span_corruption: share of the tokens
    whole_words=False,  # masked_lm: choose words, not tokens
    span_length=3.0,  # span_corruption: mean
    fim_rate=0.5,  # fill_in_the_middle: share of the rows
    spm_share=0.5,  # fill_in_the_middle: of these, with the suffix first
    # control_codes: what the code of a text is: file | folder | a field's name
    code_by="folder",
  )

  config.word_vectors = dict(  # what task=skip_gram, cbow and glove look at
    context=5,  # words to either side at most
    subsample=1e-3,  # share of the text above which words are left out; 0: none
    num_negatives=5.0,  # what the negative words of a pair weigh
    num_drawn=64,  # negative words drawn for a row of a batch
    noise_exponent=0.75,  # of the counts that they are drawn by
    x_max=100.0,  # glove: the count from which on pairs weigh the same
    weight_exponent=0.75,  # glove: of the weights of counts below
  )

  config.sample = dict(  # what training shows of itself
    # masked_lm, span_corruption, fill_in_the_middle: a text with blanks ___;
    # skip_gram, cbow, glove: words to show neighbours of
    prompt=PROMPTS.get(model, "\n"),
    num_tokens=200,  # or how many neighbours of each
    temperature=0.8,
    top_k=0,  # 0: all
    top_p=1.0,
    code="",  # control_codes: what texts stand under
  )


def _learn(config: ConfigDict) -> None:
  """Set what all tasks need."""
  config.loss = dict(
    label_smoothing=0.0,  # share of a target that is spread over all tokens
    z_loss=0.0,  # weight of the squared log of the softmax's normaliser
  )

  config.init = dict(
    # Run folder that a new run takes parameters from, and a tokenizer in the
    # place of data.tokenizer; empty: none.
    workdir="",
    checkpoint="best",  # best | latest | a step
    parameters=".*",  # those that are taken: a regular expression on paths
  )

  config.distill = dict(  # classification: what another run says of the texts
    workdir="",  # its folder; empty: learn from the labels alone
    checkpoint="best",  # best | latest | a step
    weight=0.5,  # share in the loss; 0: as if there were none
    temperature=2.0,  # of both softmaxes; above 1 small scores count more
  )

  config.pretrained = dict(
    vectors="",  # file of word vectors that the embedding begins with
    # auto (by name and first line) | word2vec | word2vec_binary | glove
    format="auto",
  )

  config.optim = dict(
    name="adamw",  # adam | adamw | adagrad | sgd
    learning_rate=1e-3,
    schedule="cosine",  # constant | cosine | wsd | inverse_sqrt
    warmup_steps=100,
    decay_steps=0,  # cosine, wsd: where it ends; 0: train.num_steps
    decay_fraction=0.2,  # wsd: share of the steps that decay
    final_fraction=0.1,  # cosine, wsd: of the learning rate at the end
    plateau_factor=1.0,  # times the rate when the loss stalls; 1: never
    plateau_patience=10,  # averages without a better one
    plateau_every=100,  # steps that an average is taken over
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    momentum=0.9,  # sgd
    nesterov=False,  # sgd
    weight_decay=0.1,  # adamw
    no_decay=r"(bias|scale|embedding)$",  # parameters that do not decay
    frozen="",  # parameters that do not learn: a regular expression on paths
    # Pairs of a regular expression on paths and a factor of the learning rate;
    # a parameter takes the first that matches. Decay is scaled with it.
    rates=(),
    clip_norm=1.0,  # global norm of the gradients; 0: no limit
    ema_decay=0.0,  # average of the parameters for evaluation; 0: none
    nt_asgd_every=0,  # NT-ASGD: steps that a loss is averaged over; 0: never
    nt_asgd_patience=5,  # averages that it may be above the best before them
  )

  config.train = dict(
    num_steps=2000,
    num_microbatches=1,  # parts of a batch whose gradients are added up
    log_every=50,
    eval_every=500,
    eval_batches=0,  # batches of valid in an evaluation; 0: all
    sample_every=1000,  # 0: never
    checkpoint_every=500,
    patience=0,  # evaluations without a better one before it stops; 0: never
  )

  config.checkpoint = dict(
    keep_latest=2,
    keep_best=1,
    # Which figure of an evaluation says what is best, here and for
    # train.patience: loss, or another of the task's, as accuracy.
    best_by="loss",
  )

  config.parallel = dict(
    strategy="jit",  # jit | pmap
    num_devices=0,  # 0: all
    cpu_devices=0,  # as how many a CPU poses; 0: as many as pay
    fsdp=1,  # jit: devices that a set of parameters is spread over
    rules=(  # jit: path → mesh axes, aligned with the last dimensions
      (r"(embedding|table)$", (None, "fsdp")),
      (r"(query|key|value|distance)/kernel$", ("fsdp", None, None)),
      (r"attention/out/kernel$", (None, None, "fsdp")),
      (r"window_\d+/kernel$", ("fsdp", None, None)),
      # Recurrent kernels stay whole: every step of a scan would have to wait
      # for the other devices.
      (r"(/|input_)kernel$", ("fsdp", None)),
    ),
  )

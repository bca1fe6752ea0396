#include <errno.h>
#include <string.h>

#include "reader_state.h"

int dpx_item_fail(struct dpx_reader *reader, struct dpx_item *item, enum dpx_op op, int err)
{
	if (item->file)
		dpx_session_close_file(reader->session, item->file);
	item->file = NULL;
	item->got = 0;
	item->status = (struct dpx_status){.err = err, .op = op};
	return err;
}

uint64_t dpx_item_want(const struct dpx_item *item)
{
	if (item->length != DPX_SIZE_UNKNOWN)
		return item->length;
	/* A size of 0 is what files tell whose content is made as they are read. */
	if (item->size == DPX_SIZE_UNKNOWN || item->size == 0)
		return DPX_SIZE_UNKNOWN;
	return item->size > item->offset ? item->size - item->offset : 0;
}

/* Compare with what the caller and the request say. Returns 0 or an errno. */
static int check_stat(struct dpx_reader *reader, struct dpx_item *item, const struct dpx_stat *st)
{
	if (st->kind == DPX_KIND_DIR)
		return EISDIR;
	if (st->kind == DPX_KIND_OTHER)
		return EOPNOTSUPP; /* a pipe or device has no content to be read at an offset */
	if (reader->options.verify_size && item->size != DPX_SIZE_UNKNOWN && st->size != DPX_SIZE_UNKNOWN &&
	    st->size != item->size)
		return st->size > item->size ? EFBIG : ENODATA;
	return 0;
}

/* `want` of a file to be read to its end, from what it tells of itself. */
static int want_all(struct dpx_reader *reader, struct dpx_item *item, uint64_t size)
{
	char probe;
	size_t got;
	if (size == 0) {
		int rc = reader->session->io.read(item->file, &probe, 1, item->offset, &got);
		if (rc)
			return rc;
		if (got == 0) {
			item->want = 0;
			return item->offset ? ENODATA : 0;
		}
	}
	if (size == 0 || size == DPX_SIZE_UNKNOWN) {
		item->want = DPX_SIZE_UNKNOWN;
		return 0;
	}
	if (item->offset > size)
		return ENODATA;
	item->want = size - item->offset;
	return 0;
}

/* `want` as far as the request and what was kept of the file tell. With verify_size the file itself is asked. */
static uint64_t first_want(const struct dpx_reader *reader, const struct dpx_item *item)
{
	uint64_t want = dpx_item_want(item), size = item->known_size;
	if (want != DPX_SIZE_UNKNOWN || size == DPX_SIZE_UNKNOWN || size <= item->offset || reader->options.verify_size)
		return want;
	return size - item->offset;
}

int dpx_item_begin(struct dpx_reader *reader, struct dpx_item *item)
{
	struct dpx_session *session = reader->session;
	struct dpx_stat st;
	int rc = item->file ? 0 : dpx_item_recall(reader, item);
	if (rc)
		rc = dpx_session_open_file(session, item->path, &item->file);
	if (rc) {
		item->file = NULL;
		return dpx_item_fail(reader, item, DPX_OP_OPEN, rc);
	}
	atomic_store_explicit(&item->opened, 1, memory_order_relaxed);
	item->want = first_want(reader, item);
	item->file_size = DPX_SIZE_UNKNOWN;
	if (item->length == DPX_SIZE_UNKNOWN && item->size != DPX_SIZE_UNKNOWN && item->size &&
	    item->offset > item->size)
		return dpx_item_fail(reader, item, DPX_OP_READ, ENODATA);
	int all = item->want == DPX_SIZE_UNKNOWN;
	if (all && session->io.size_costs && !reader->options.verify_size)
		return 0;
	/* Reading finds out all the rest: that it is a directory, that it is too short. */
	if (!all && item->want > 0 && !reader->options.verify_size)
		return 0;
	rc = session->io.fstat(item->file, &st);
	if (rc)
		return dpx_item_fail(reader, item, DPX_OP_STAT, rc);
	rc = check_stat(reader, item, &st);
	if (rc)
		return dpx_item_fail(reader, item, rc == EISDIR ? DPX_OP_OPEN : DPX_OP_READ, rc);
	item->file_size = st.size;
	if (all)
		rc = want_all(reader, item, st.size);
	else if (st.size != DPX_SIZE_UNKNOWN && item->offset > st.size) /* an empty range past the end */
		rc = ENODATA;
	return rc ? dpx_item_fail(reader, item, DPX_OP_READ, rc) : 0;
}

/* Twice the room for a file that is longer than it told; what was read moves along. */
static int grow(struct dpx_reader *reader, struct dpx_item *item)
{
	struct dpx_buffer *larger;
	size_t room = item->buffer->capacity;
	int rc = dpx_buffers_get(reader->session->buffers, room * 2, &larger);
	if (rc)
		return rc;
	memcpy(larger->data, item->buffer->data, item->got);
	dpx_buffer_release(item->buffer);
	item->buffer = larger;
	item->dest = larger->data;
	dpx_reader_hold_more(reader, item, larger->capacity - room);
	return 0;
}

/* Past what a first read has filled, to the end of a file that does not tell where that is. */
static int read_on(struct dpx_reader *reader, struct dpx_item *item)
{
	int rc = 0;
	size_t got = 0;
	for (size_t room = 0; !rc && got == room; item->got += got) {
		rc = atomic_load_explicit(&reader->cancelled, memory_order_relaxed) ? ECANCELED : grow(reader, item);
		if (rc)
			break;
		room = item->buffer->capacity - item->got;
		rc = reader->session->io.read(item->file, item->buffer->data + item->got, room,
					      item->offset + item->got, &got);
	}
	return rc;
}

/* The buffer was filled without a question for the size. Now it is worth one: memory of that size is asked for, and
 * all of it read. EAGAIN: so it is to be. */
static int ask_size(struct dpx_reader *reader, struct dpx_item *item)
{
	struct dpx_stat st;
	int rc = reader->session->io.fstat(item->file, &st);
	if (rc || st.size == DPX_SIZE_UNKNOWN)
		return rc == EAGAIN ? EIO : rc; /* from the store it would be taken for ours */
	item->file_size = st.size;
	item->got = 0;
	item->want = st.size > item->offset ? st.size - item->offset : 0;
	if (!item->want)
		return ENODATA; /* it was longer a moment ago */
	dpx_reader_ask_again(reader, item);
	return EAGAIN;
}

/* Nothing came: the request begins where the file ends, or past that. */
static int check_offset(struct dpx_reader *reader, struct dpx_item *item)
{
	struct dpx_stat st;
	int rc = reader->session->io.fstat(item->file, &st);
	return rc ? rc : st.size < item->offset ? ENODATA : 0;
}

/* A read came up short. That is an error, unless nobody promised anything and the file still tells the same size:
 * then it is of the kind whose size means nothing, which no store has that is asked for it by a call of its own. */
static int explain_short(struct dpx_reader *reader, struct dpx_item *item)
{
	struct dpx_stat st;
	int promised = dpx_item_want(item) != DPX_SIZE_UNKNOWN;
	if (promised && !reader->session->io.size_costs)
		return ENODATA;
	int rc = reader->session->io.fstat(item->file, &st); /* ESTALE, where a table can tell */
	if (rc)
		return rc;
	return !promised && !reader->session->io.size_costs && st.size == item->file_size ? 0 : ENODATA;
}

/* With verify_size: is it still as long as at first, or as promised? */
static int verify(struct dpx_reader *reader, struct dpx_item *item)
{
	struct dpx_stat st;
	int rc = reader->session->io.fstat(item->file, &st);
	if (rc)
		return rc;
	if (st.size != item->file_size)
		return st.size > item->file_size ? EFBIG : ENODATA;
	/* content that was made as it was read, where nothing was promised */
	return item->want == DPX_SIZE_UNKNOWN && item->size == 0 && item->got ? EFBIG : 0;
}

size_t dpx_item_room(const struct dpx_item *item)
{
	return item->want == DPX_SIZE_UNKNOWN ? item->buffer->capacity : (size_t)item->want;
}

int dpx_item_landed(struct dpx_reader *reader, struct dpx_item *item, int rc, size_t got)
{
	struct dpx_session *session = reader->session;
	int asks = session->io.size_costs && item->want == DPX_SIZE_UNKNOWN && item->file_size == DPX_SIZE_UNKNOWN;
	item->got = rc ? 0 : got;
	if (!rc && item->want == DPX_SIZE_UNKNOWN && got == item->buffer->capacity) {
		rc = asks ? ask_size(reader, item) : 0;
		if (asks && rc == EAGAIN)
			return EAGAIN;
		if (!rc)
			rc = read_on(reader, item);
	} else if (!rc && asks && got == 0 && item->offset) {
		rc = check_offset(reader, item);
	} else if (!rc && item->want != DPX_SIZE_UNKNOWN && got < item->want) {
		rc = explain_short(reader, item);
	}
	if (!rc && reader->options.verify_size)
		rc = verify(reader, item);
	if (rc) {
		dpx_item_fail(reader, item, DPX_OP_READ, rc);
		return 0;
	}
	dpx_item_remember(reader, item);
	dpx_session_close_file(session, item->file);
	item->file = NULL;
	atomic_fetch_add_explicit(&session->counters.reads, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&session->counters.read_bytes, item->got, memory_order_relaxed);
	return 0;
}

int dpx_item_read(struct dpx_reader *reader, struct dpx_item *item)
{
	size_t got = 0;
	int rc = 0;
	if (item->want > 0)
		rc = reader->session->io.read(item->file, item->dest, dpx_item_room(item), item->offset, &got);
	return dpx_item_landed(reader, item, rc, got);
}

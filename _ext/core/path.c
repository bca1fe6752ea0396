#include "path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void dpx_text_free(struct dpx_text *text)
{
	free(text->text);
	*text = (struct dpx_text){0};
}

int dpx_text_room(struct dpx_text *text, size_t more)
{
	size_t need = text->len + more + 1;
	if (need <= text->capacity)
		return 0;
	size_t capacity = text->capacity * 2 < need ? need : text->capacity * 2;
	char *grown = realloc(text->text, capacity);
	if (!grown)
		return ENOMEM;
	text->text = grown;
	text->capacity = capacity;
	return 0;
}

int dpx_text_add(struct dpx_text *text, const char *bytes, size_t len)
{
	if (dpx_text_room(text, len))
		return ENOMEM;
	memcpy(text->text + text->len, bytes, len);
	text->len += len;
	text->text[text->len] = '\0';
	return 0;
}

int dpx_path_check(const char *path)
{
	for (const char *part = path; part; part = strchr(part, '/')) {
		part += *part == '/';
		if (part[0] == '.' && part[1] == '.' && (part[2] == '/' || part[2] == '\0'))
			return EINVAL;
	}
	return 0;
}

int dpx_path_resumes(const char *dir, size_t dir_len, const char *after, const char **inside)
{
	*inside = NULL;
	if (!after)
		return 1;
	if (strncmp(after, dir, dir_len) == 0) {
		*inside = after + dir_len;
		return 1;
	}
	return strcmp(dir, after) > 0;
}

int dpx_name_resumes(const char *name, const char *inside)
{
	if (!inside)
		return 1;
	size_t len = strlen(name);
	if (len && name[len - 1] == '/' && strncmp(inside, name, len) == 0)
		return 1;
	return strcmp(name, inside) > 0;
}

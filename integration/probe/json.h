/* One JSON object a line, written to `out`. For programs that run inside containers: no
 * allocation, no locale. */
#ifndef INTEGRATION_JSON_H
#define INTEGRATION_JSON_H

#include <stdio.h>

static FILE *out;
static int first; /* no comma before the next member */

static void comma(void)
{
    if (!first)
        fputc(',', out);
    first = 0;
}

static void quoted(const char *text)
{
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\')
            fprintf(out, "\\%c", *p);
        else if (*p < 0x20 || *p >= 0x7f) /* bytes as latin-1: the reader maps them back */
            fprintf(out, "\\u%04x", *p);
        else
            fputc(*p, out);
    }
    fputc('"', out);
}

static void key(const char *name)
{
    comma();
    quoted(name);
    fputc(':', out);
}

static void str(const char *name, const char *value)
{
    key(name);
    quoted(value);
}

static void num(const char *name, long long value)
{
    key(name);
    fprintf(out, "%lld", value);
}

static void open_with(const char *name, char bracket)
{
    key(name);
    fputc(bracket, out);
    first = 1;
}

static void close_with(char bracket)
{
    fputc(bracket, out);
    first = 0;
}

static void begin(const char *action)
{
    fputc('{', out);
    first = 1;
    str("action", action);
}

static void end(void)
{
    fputs("}\n", out);
    fflush(out);
}

#endif
